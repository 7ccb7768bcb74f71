"""Questions to the ledger, and how progress is followed and shown. Nothing in here changes a row."""
