"""Pages of one HTML file: markup, charts, the frame, and the reports that use them."""
