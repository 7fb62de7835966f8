"""What a trainer elsewhere needs: rows, recipes, the program and a manifest."""
