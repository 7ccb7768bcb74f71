"""What keeps a farm sound: the doctor, `nightshift verify` and `nightshift gc`."""
