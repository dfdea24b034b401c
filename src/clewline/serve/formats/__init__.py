"""The formats that rows come in: from the bytes of a body to checked rows."""
