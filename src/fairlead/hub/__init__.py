"""
Models from elsewhere: a file of a hub or of any HTTPS server, by a pinned digest.

Only `fairlead models import` and `fairlead endpoints check` and `apply` come here;
the prediction server itself fetches nothing.
"""
