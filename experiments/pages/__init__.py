"""Pages that people read: report, gallery, README's generated parts."""
