"""Security protocols: they turn a raw stream into one whose other end has proved who it is."""
