"""Code that several services share: settings, errors, logs, metrics."""
