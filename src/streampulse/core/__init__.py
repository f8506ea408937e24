"""What several services share: settings, errors, logs, metrics."""
