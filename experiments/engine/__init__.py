"""One engine for every study: identity, named parts, run the missing ones, tidy tables."""
