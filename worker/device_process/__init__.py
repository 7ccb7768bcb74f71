"""The process that serves one device: its threads, its packs, its leases, and how it ends."""
