"""From logits to scores with their intervals, of one run or of several."""
