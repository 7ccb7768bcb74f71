"""The page: what each address shows."""
