"""
Models from elsewhere: a file of a hub or of any HTTPS server, by a pinned digest.

Only `clewline models import` and `clewline endpoints check` and `apply` come here. The
prediction server fetches nothing.
"""
