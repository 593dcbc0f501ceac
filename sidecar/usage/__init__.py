"""What was used, by whom, and what it cost: model calls on their way from the gateway's transcripts into the ledger."""
