"""
Models from elsewhere: a file of a hub or of any HTTPS server, by a pinned digest.

Only `clewline models import` and `clewline endpoints check` and `apply` come here;
the prediction server itself fetches nothing.
"""
