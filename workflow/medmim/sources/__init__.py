"""Sources as plug-ins, one folder a source; what they share lies beside them."""
