"""ROAR and KAR: retraining without the pixels that an attribution ranks first, or on them alone."""
