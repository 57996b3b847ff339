"""Re-enactment of files with a trained model; see README.md."""
