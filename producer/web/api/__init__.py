"""`/api/v1`: the same as the commands, over HTTP."""
