"""The market service: bids over HTTP, a gate, clearing runs, published prices and statements."""
