"""Problems with solutions: read from data sets, graded."""
