"""From rows to a batch in the ledger, and what that would come to beforehand."""
