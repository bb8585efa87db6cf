"""Routes: from a request to a job or a query, and from its result to a response; no rule of the market is here."""
