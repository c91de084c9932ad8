"""Forms: other ways to write down one array, from which its items are computed again. One form in each module."""
