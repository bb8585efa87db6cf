"""What the market trades, as Pyomo rules: one module per product."""
