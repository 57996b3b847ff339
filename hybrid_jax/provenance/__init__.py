"""What a result was made from: record, sidecar, content credentials, and their verification."""
