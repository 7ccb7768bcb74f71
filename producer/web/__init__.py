"""`nightshift web`: the page and the API, who may ask them, and what they tell."""
