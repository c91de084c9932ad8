"""What becomes of states when versions change: documents from version to version, and the files that hold them."""
