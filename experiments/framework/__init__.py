"""What all experiments share: configuration checks, artifacts, tidy results, the life of a job, trackers."""
