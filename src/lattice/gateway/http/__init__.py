"""HTTP plumbing that every route shares: reading bounded bodies, answering, turning errors into the two wire shapes."""
