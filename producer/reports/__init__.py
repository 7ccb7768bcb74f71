"""What is made of finished images for people: galleries, contact sheets, grids, reports."""
