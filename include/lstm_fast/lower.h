/* The products of a lower precision, LF_PRECISION. */
#include "lstm_fast/precision.h"
#include "lstm_fast/operands.h"
#include "lstm_fast/product.h"
#include "lstm_fast/pack.h"
#if LF_PRECISION != LF_WIDENED && LF_PRECISION != LF_MIXED /* which multiply inputs alone */
#include "lstm_fast/step.h"
#endif
