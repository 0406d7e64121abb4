"""Pictures of nets and of their training; all need matplotlib."""
