"""Money without music: the ledger's front door."""
