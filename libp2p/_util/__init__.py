"""Small parts that several layers share."""
