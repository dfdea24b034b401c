"""One folder for each model family, behind one adapter each (`family.Family`)."""
