"""Other people's folder layouts, one module each: `load(folder, config)`, `save(dictionary, folder)`."""
