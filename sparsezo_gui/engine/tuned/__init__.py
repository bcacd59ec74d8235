"""What a run can continue from besides a pretrained model: one file per kind, registered in `sparsezo_gui.formats`."""
