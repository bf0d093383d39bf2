"""Which documents were in a step and which steps read a document, found from a checkpoint's ledger alone."""
