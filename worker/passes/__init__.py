"""Forward passes: which jobs share one, how one is rendered, and how many images the memory holds."""
