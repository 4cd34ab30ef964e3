"""What every parallel method is written against: the DiT view, the fabric, and their ledgers."""
