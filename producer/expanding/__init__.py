"""What one row of a manifest becomes: templates, sweeps, several images of each."""
