"""ROAR and KAR (paper, section 4): retraining without the most relevant pixels, or on them alone."""
