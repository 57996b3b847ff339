"""Many re-enactments from one table, over several processes."""
