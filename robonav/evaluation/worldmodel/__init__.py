"""How good a world model is: decoding, open-loop prediction, collisions, returns, and what its state knows."""
