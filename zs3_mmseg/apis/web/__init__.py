"""The page that ``zs3 web`` serves; only ``page`` needs Gradio."""
