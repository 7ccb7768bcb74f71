"""What both sides share and that touches the outside: ledger, broker, image store, embedded servers."""
