"""Questions to a fitted field: labels, text relevancy, pictures, scores."""
