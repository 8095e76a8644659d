"""Pages of requests: lists, one request, decisions."""
