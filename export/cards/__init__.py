"""Write model cards, the collection's page, and the headers that each hub requires."""
