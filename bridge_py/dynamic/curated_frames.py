"""The names of pandas and polars that dynamic calls may reach by default: exactly these."""

from __future__ import annotations

from typing import Final

#: By module: the functions, classes and constants that dynamic calls may name.
MODULES: Final[dict[str, str]] = {
    "pandas": (
        "Categorical CategoricalDtype CategoricalIndex DataFrame DateOffset DatetimeIndex DatetimeTZDtype Grouper"
        " Index Interval IntervalDtype IntervalIndex MultiIndex NA NaT Period PeriodDtype PeriodIndex"
        " RangeIndex Series StringDtype Timedelta TimedeltaIndex Timestamp __version__ array bdate_range concat"
        " crosstab cut date_range factorize from_dummies get_dummies get_option infer_freq interval_range isna isnull"
        " json_normalize lreshape melt merge merge_asof merge_ordered notna notnull period_range pivot pivot_table"
        " qcut read_csv read_excel read_feather read_fwf read_json read_orc read_parquet read_table timedelta_range"
        " to_datetime to_numeric to_timedelta unique value_counts wide_to_long"
    ),
    "pandas.api": "",
    "pandas.api.types": (
        "CategoricalDtype DatetimeTZDtype IntervalDtype PeriodDtype infer_dtype is_any_real_numeric_dtype is_array_like"
        " is_bool is_bool_dtype is_complex is_complex_dtype is_datetime64_any_dtype is_datetime64_dtype is_dict_like"
        " is_dtype_equal is_float is_float_dtype is_hashable is_integer is_integer_dtype is_iterator is_list_like"
        " is_number is_numeric_dtype is_object_dtype is_scalar is_string_dtype is_timedelta64_dtype union_categoricals"
    ),
    "pandas.tseries": "",
    "pandas.tseries.offsets": (
        "BDay BHalfYearBegin BHalfYearEnd BMonthBegin BMonthEnd BQuarterBegin BQuarterEnd BYearBegin BYearEnd"
        " BusinessDay BusinessHour BusinessMonthBegin BusinessMonthEnd CBMonthBegin CBMonthEnd CDay CustomBusinessDay"
        " CustomBusinessHour CustomBusinessMonthBegin CustomBusinessMonthEnd DateOffset Day Easter FY5253"
        " FY5253Quarter HalfYearBegin HalfYearEnd Hour LastWeekOfMonth Micro Milli Minute MonthBegin MonthEnd Nano"
        " QuarterBegin QuarterEnd Second SemiMonthBegin SemiMonthEnd Tick Week WeekOfMonth YearBegin YearEnd"
    ),
    "polars": (
        "Array Binary Boolean Categorical DataFrame DataType Date Datetime Decimal Duration Enum Expr Float16 Float32"
        " Float64 Int128 Int16 Int32 Int64 Int8 LazyFrame List Map Null Series String Struct Time UInt128 UInt16"
        " UInt32 UInt64 UInt8 Utf8 align_frames all all_horizontal any any_horizontal approx_n_unique arange arctan2"
        " arg_sort_by arg_where business_day_count coalesce col collect_all concat concat_arr concat_list concat_str"
        " corr count cov cum_count cum_sum cum_sum_horizontal date date_range date_ranges datetime datetime_range"
        " datetime_ranges duration escape_regex exclude first from_arrow from_dict from_dicts from_epoch from_numpy"
        " from_pandas from_records head implode int_range int_ranges last len linear_space linear_spaces list lit max"
        " max_horizontal mean mean_horizontal median merge_sorted min min_horizontal n_unique nth ones quantile repeat"
        " rolling_corr rolling_cov row_index select std struct sum sum_horizontal tail time time_range time_ranges var"
        " when zeros __version__ read_avro read_csv read_excel read_ipc read_json read_ndjson read_ods"
        " read_parquet scan_csv scan_ipc scan_ndjson scan_parquet"
    ),
    "polars.selectors": (
        "all alpha alphanumeric array binary boolean by_dtype by_index by_name categorical contains date datetime"
        " decimal digit duration ends_with enum exclude first float integer last list map matches nested numeric"
        " signed_integer starts_with string struct temporal time unsigned_integer"
    ),
}

#: By class, as module:name: the methods and attributes of its objects that dynamic calls may name.
TYPES: Final[dict[str, str]] = {
    "pandas:DataFrame": (
        "T abs add add_prefix add_suffix agg aggregate align all any apply asfreq asof assign astype at at_time axes"
        " between_time bfill clip columns combine_first compare convert_dtypes copy corr corrwith count cov cummax"
        " cummin cumprod cumsum describe diff div divide dot drop drop_duplicates droplevel dropna dtypes duplicated"
        " empty eq equals ewm expanding explode ffill fillna filter first_valid_index floordiv from_dict from_records"
        " ge get groupby gt head iat idxmax idxmin iloc index infer_objects info insert interpolate isetitem isin isna"
        " isnull items iterrows itertuples join keys kurt kurtosis last_valid_index le loc lt mask max mean median"
        " melt memory_usage merge min mod mode mul multiply ndim ne nlargest notna notnull nsmallest nunique"
        " pct_change pivot pivot_table pop pow prod product quantile radd rank rdiv reindex reindex_like rename"
        " rename_axis reorder_levels replace resample reset_index rfloordiv rmod rmul rolling round rpow rsub rtruediv"
        " sample select_dtypes sem set_axis set_index shape shift size skew sort_index sort_values squeeze stack std"
        " sub subtract sum swaplevel tail take to_csv to_dict to_html to_json to_numpy to_period to_records to_string"
        " to_timestamp transform transpose truediv truncate tz_convert tz_localize unstack update value_counts values"
        " var where xs"
    ),
    "pandas:Series": (
        "T abs add add_prefix add_suffix agg aggregate align all any apply argmax argmin argsort asfreq asof astype"
        " at at_time autocorr axes between between_time bfill cat clip combine_first compare convert_dtypes copy corr"
        " count cov cummax cummin cumprod cumsum describe diff div divide divmod dot drop drop_duplicates droplevel"
        " dropna dt dtype dtypes duplicated empty eq equals ewm expanding explode factorize ffill fillna filter"
        " first_valid_index floordiv ge get groupby gt hasnans head iat idxmax idxmin iloc index infer_objects info"
        " interpolate is_monotonic_decreasing is_monotonic_increasing is_unique isin isna isnull item items keys kurt"
        " kurtosis last_valid_index le loc lt map mask max mean median memory_usage min mod mode mul multiply name"
        " nbytes ndim ne nlargest notna notnull nsmallest nunique pct_change pop pow prod product quantile radd rank"
        " rdiv rdivmod reindex reindex_like rename rename_axis reorder_levels repeat replace resample reset_index"
        " rfloordiv rmod rmul rolling round rpow rsub rtruediv sample searchsorted sem set_axis shape shift size skew"
        " sort_index sort_values squeeze std str sub subtract sum swaplevel tail take to_csv to_dict to_frame to_json"
        " to_list to_numpy to_period to_string to_timestamp tolist transform transpose truediv truncate tz_convert"
        " tz_localize unique unstack update value_counts values var where xs"
    ),
    "pandas:Index": (
        "T all any append argmax argmin argsort as_unit asfreq asof asof_locs astype categories ceil closed codes"
        " components contains copy date day day_name day_of_week day_of_year dayofweek dayofyear days days_in_month"
        " daysinmonth delete diff difference drop drop_duplicates droplevel dropna dtype duplicated empty equals"
        " factorize fillna floor freq freqstr from_arrays from_breaks from_frame from_product from_tuples get_indexer"
        " get_indexer_for get_indexer_non_unique get_level_values get_loc get_loc_level get_slice_bound has_duplicates"
        " hasnans hour identical indexer_at_time indexer_between_time infer_objects inferred_freq inferred_type insert"
        " intersection is_leap_year is_monotonic_decreasing is_monotonic_increasing is_month_end is_month_start"
        " is_normalized is_quarter_end is_quarter_start is_unique is_year_end is_year_start isin isna isnull"
        " isocalendar item join left length levels map max mean memory_usage microsecond mid min minute month"
        " month_name name names nanosecond nbytes ndim nlevels normalize notna notnull nunique ordered overlaps"
        " quarter reindex remove_unused_levels rename reorder_levels repeat replace resolution right round"
        " searchsorted second seconds set_names shape shift size slice_indexer slice_locs snap sort_values sortlevel"
        " start std step stop str strftime swaplevel symmetric_difference take time timetz to_flat_index to_frame"
        " to_julian_date to_list to_numpy to_period to_pydatetime to_series to_timestamp tolist total_seconds"
        " transpose tz tz_convert tz_localize tzinfo union unique unit value_counts values weekday where year"
    ),
    "pandas.core.groupby.groupby:BaseGroupBy": (
        "agg aggregate all any apply asfreq bfill corr corrwith count cov cumcount cummax cummin cumprod cumsum"
        " describe diff dtype ewm expanding ffill first get_group groups head idxmax idxmin indices interpolate"
        " is_monotonic_decreasing is_monotonic_increasing keys kurt last level max mean median min ndim nearest ngroup"
        " ngroups nlargest nsmallest nth nunique ohlc pct_change prod quantile rank resample rolling sample sem shift"
        " size skew std sum tail take transform unique value_counts var"
    ),
    "pandas.core.window.rolling:BaseWindow": (
        "agg aggregate apply corr count cov first kurt last max mean median min ndim nunique quantile rank sem skew"
        " std sum var"
    ),
    "pandas.core.resample:Resampler": (
        "agg aggregate apply asfreq bfill count ffill first get_group groups indices interpolate keys last level max"
        " mean median min ndim nearest ngroups nunique ohlc prod quantile sem size std sum transform var"
    ),
    "pandas:Timestamp": (
        "as_unit astimezone ceil combine ctime date day day_name day_of_week day_of_year dayofweek dayofyear"
        " days_in_month daysinmonth dst floor fold fromisocalendar fromisoformat fromordinal fromtimestamp hour"
        " is_leap_year is_month_end is_month_start is_quarter_end is_quarter_start is_year_end is_year_start"
        " isocalendar isoformat isoweekday max microsecond min minute month month_name nanosecond normalize now"
        " quarter replace resolution round second strftime strptime time timestamp timetuple timetz to_datetime64"
        " to_julian_date to_numpy to_period to_pydatetime today toordinal tz tz_convert tz_localize tzinfo tzname unit"
        " utcfromtimestamp utcnow utcoffset utctimetuple week weekday weekofyear year"
    ),
    "pandas:Timedelta": (
        "as_unit ceil components days floor isoformat max microseconds min nanoseconds resolution resolution_string"
        " round seconds to_numpy to_pytimedelta to_timedelta64 total_seconds unit"
    ),
    "pandas:Period": (
        "asfreq day day_of_week day_of_year dayofweek dayofyear days_in_month daysinmonth end_time freq freqstr hour"
        " is_leap_year minute month now ordinal quarter qyear second start_time strftime to_timestamp week weekday"
        " weekofyear year"
    ),
    "pandas:Interval": ("closed closed_left closed_right is_empty left length mid open_left open_right overlaps right"),
    "pandas._libs.tslibs.nattype:NaTType": "isoformat",
    "pandas._libs.tslibs.offsets:BaseOffset": (
        "freqstr kwds n name nanos normalize rollback rollforward is_on_offset is_month_end is_month_start"
        " is_quarter_end is_quarter_start is_year_end is_year_start copy"
    ),
    "pandas.core.arrays.base:ExtensionArray": (
        "T add_categories argmax argmin argsort as_ordered as_unordered astype categories codes copy count delete"
        " describe dropna dtype duplicated equals factorize fillna from_codes insert interpolate isin isna isnull item"
        " max memory_usage min nbytes ndim notna notnull ordered ravel remove_categories remove_unused_categories"
        " rename_categories reorder_categories repeat reshape round searchsorted set_categories set_ordered shape"
        " shift size sort sort_values swapaxes take to_numpy tolist transpose unique value_counts"
    ),
    "pandas.core.dtypes.base:ExtensionDtype": "name kind categories ordered tz unit freq subtype",
    "pandas.core.strings.accessor:StringMethods": (
        "capitalize casefold cat center contains count decode encode endswith extract extractall find findall"
        " fullmatch get get_dummies index isalnum isalpha isascii isdecimal isdigit islower isnumeric isspace istitle"
        " isupper join len ljust lower lstrip match normalize pad partition removeprefix removesuffix repeat replace"
        " rfind rindex rjust rpartition rsplit rstrip slice slice_replace split startswith strip swapcase title"
        " translate upper wrap zfill"
    ),
    "pandas.core.indexes.accessors:Properties": (
        "as_unit asfreq ceil components date day day_name day_of_week day_of_year dayofweek dayofyear days"
        " days_in_month daysinmonth end_time floor freq hour is_leap_year is_month_end is_month_start is_quarter_end"
        " is_quarter_start is_year_end is_year_start isocalendar microsecond microseconds minute month month_name"
        " nanosecond nanoseconds normalize quarter qyear round second seconds start_time strftime time timetz"
        " to_period to_pydatetime to_pytimedelta to_timestamp total_seconds tz tz_convert tz_localize unit weekday"
        " year"
    ),
    "pandas.core.arrays.categorical:CategoricalAccessor": (
        "add_categories as_ordered as_unordered categories codes ordered remove_categories remove_unused_categories"
        " rename_categories reorder_categories set_categories"
    ),
    "polars:DataFrame": (
        "bottom_k cast clear clone collect_schema columns corr count describe drop drop_in_place drop_nans drop_nulls"
        " dtypes equals estimated_size explode extend fill_nan fill_null filter gather gather_every get_column"
        " get_column_index get_columns group_by group_by_dynamic hash_rows head height hstack insert_column"
        " interpolate is_duplicated is_empty is_sorted is_unique item iter_columns iter_rows iter_slices join"
        " join_asof join_where lazy limit match_to_schema max max_horizontal mean mean_horizontal median merge_sorted"
        " min min_horizontal n_chunks n_unique null_count partition_by pivot product quantile rechunk remove rename"
        " replace_column reverse rolling row rows rows_by_key sample schema select select_seq shape shift"
        " shrink_to_fit slice sort std sum sum_horizontal tail to_arrow to_dict to_dicts to_dummies to_numpy to_pandas"
        " to_series to_struct top_k transpose unique unnest unpivot unstack update upsample var vstack width"
        " with_columns with_columns_seq with_row_index write_csv write_json write_ndjson"
    ),
    "polars:LazyFrame": (
        "bottom_k cast clear clone collect collect_schema columns count describe drop drop_nans drop_nulls dtypes"
        " explain explode fill_nan fill_null filter first gather gather_every group_by group_by_dynamic head"
        " interpolate join join_asof join_where last lazy limit match_to_schema max mean median merge_sorted min"
        " null_count pivot quantile remove rename reverse rolling schema select select_seq shift slice sort std sum"
        " tail top_k unique unnest unpivot update var width with_columns with_columns_seq with_row_index"
    ),
    "polars:Series": (
        "abs alias all any append approx_n_unique approx_quantile arccos arccosh arcsin arcsinh arctan arctanh"
        " arg_max arg_min arg_sort arg_true arg_unique arr backward_fill bin bin_intervals bin_quantiles bin_ranks"
        " bitwise_and bitwise_count_ones bitwise_count_zeros bitwise_leading_ones bitwise_leading_zeros bitwise_or"
        " bitwise_trailing_ones bitwise_trailing_zeros bitwise_xor bottom_k bottom_k_by cast cat cbrt ceil"
        " chunk_lengths clear clip clone cos cosh cot count cum_count cum_max cum_min cum_prod cum_sum"
        " cut degrees describe diff dot drop_nans drop_nulls dt dtype entropy eq eq_missing equals erf erfc"
        " estimated_size ewm_mean ewm_mean_by ewm_std ewm_sum ewm_sum_by ewm_var exp explode extend extend_constant"
        " fill_nan fill_null filter first floor forward_fill gather gather_every ge gt has_nulls hash head implode"
        " index_of interpolate interpolate_by is_between is_close is_duplicated is_empty is_finite is_first_distinct"
        " is_in is_infinite is_last_distinct is_nan is_not_nan is_not_null is_null is_sorted is_unique item kurtosis"
        " last le len limit list log log10 log1p lower_bound lt max max_by mean median min min_by mode n_chunks"
        " n_unique name nan_max nan_min ne ne_missing new_from_index not_ null_count pct_change peak_max peak_min pow"
        " product qcut quantile radians rank rechunk reinterpret rename repeat_by replace replace_strict reshape"
        " reverse rle rle_id rolling_kurtosis rolling_max rolling_max_by rolling_mean rolling_mean_by rolling_median"
        " rolling_median_by rolling_min rolling_min_by rolling_quantile rolling_quantile_by rolling_rank"
        " rolling_rank_by rolling_skew rolling_std rolling_std_by rolling_sum rolling_sum_by rolling_var"
        " rolling_var_by round round_sig_figs sample scatter search_sorted set shape shift shrink_dtype shrink_to_fit"
        " shuffle sign sin sinh skew slice sort sqrt std str struct sum tail tan tanh to_arrow to_dummies to_frame"
        " to_list to_numpy to_pandas to_physical top_k top_k_by truncate unique unique_counts upper_bound value_counts"
        " var zip_with"
    ),
    "polars:Expr": (
        "abs add alias all and_ any append approx_n_unique approx_quantile arccos arccosh arcsin arcsinh arctan"
        " arctanh arg_max arg_min arg_sort arg_true arg_unique arr backward_fill bin bin_intervals bin_quantiles"
        " bin_ranks bitwise_and bitwise_count_ones bitwise_count_zeros bitwise_leading_ones bitwise_leading_zeros"
        " bitwise_or bitwise_trailing_ones bitwise_trailing_zeros bitwise_xor bottom_k bottom_k_by cast cat cbrt ceil"
        " clip cos cosh cot count cum_count cum_max cum_min cum_prod cum_sum cut degrees diff dot"
        " drop_nans drop_nulls dt entropy eq eq_missing erf erfc ewm_mean ewm_mean_by ewm_std ewm_sum ewm_sum_by"
        " ewm_var exclude exp explode extend_constant fill_nan fill_null filter first floor floordiv forward_fill"
        " gather gather_every ge get gt has_nulls hash head implode index_of interpolate interpolate_by is_between"
        " is_close is_duplicated is_empty is_finite is_first_distinct is_in is_infinite is_last_distinct is_nan"
        " is_not_nan is_not_null is_null is_sorted is_unique item kurtosis last le len limit list log log10 log1p"
        " lower_bound lt max max_by mean median min min_by mod mode mul n_unique name nan_max nan_min ne ne_missing"
        " neg not_ null_count or_ over pct_change peak_max peak_min pow product qcut quantile radians rank reinterpret"
        " repeat_by replace replace_strict reshape reverse rle rle_id rolling rolling_kurtosis rolling_max"
        " rolling_max_by rolling_mean rolling_mean_by rolling_median rolling_median_by rolling_min rolling_min_by"
        " rolling_quantile rolling_quantile_by rolling_rank rolling_rank_by rolling_skew rolling_std rolling_std_by"
        " rolling_sum rolling_sum_by rolling_var rolling_var_by round round_sig_figs sample search_sorted shift"
        " shuffle sign sin sinh skew slice sort sort_by sqrt std str struct sub sum tail tan tanh to_physical top_k"
        " top_k_by truediv truncate truncdiv unique unique_counts upper_bound value_counts var xor"
    ),
    "polars.expr.string:ExprStringNameSpace": (
        "contains contains_any count_matches decode encode ends_with escape_regex extract extract_all extract_groups"
        " extract_many find find_many head join json_decode json_path_match len_bytes len_chars normalize pad_end"
        " pad_start replace replace_all replace_many reverse slice split split_exact splitn starts_with strip_chars"
        " strip_chars_end strip_chars_start strip_prefix strip_suffix strptime tail to_date to_datetime to_decimal"
        " to_integer to_lowercase to_time to_titlecase to_uppercase zfill"
    ),
    "polars.series.string:StringNameSpace": (
        "contains contains_any count_matches decode encode ends_with escape_regex extract extract_all extract_groups"
        " extract_many find find_many head join json_decode json_path_match len_bytes len_chars normalize pad_end"
        " pad_start replace replace_all replace_many reverse slice split split_exact splitn starts_with strip_chars"
        " strip_chars_end strip_chars_start strip_prefix strip_suffix strptime tail to_date to_datetime to_decimal"
        " to_integer to_lowercase to_time to_titlecase to_uppercase zfill"
    ),
    "polars.expr.datetime:ExprDateTimeNameSpace": (
        "add_business_days base_utc_offset cast_time_unit century combine convert_time_zone date day days_in_month"
        " dst_offset epoch hour is_business_day is_leap_year iso_year microsecond millennium millisecond minute month"
        " month_end month_start nanosecond offset_by ordinal_day quarter replace replace_time_zone round second"
        " strftime time timestamp to_string total_days total_hours total_microseconds total_milliseconds total_minutes"
        " total_nanoseconds total_seconds truncate week weekday year"
    ),
    "polars.series.datetime:DateTimeNameSpace": (
        "add_business_days base_utc_offset cast_time_unit century combine convert_time_zone date day days_in_month"
        " dst_offset epoch hour is_business_day is_leap_year iso_year max microsecond millennium millisecond min"
        " minute month month_end month_start nanosecond offset_by ordinal_day quarter replace replace_time_zone round"
        " second strftime time timestamp to_string total_days total_hours total_microseconds total_milliseconds"
        " total_minutes total_nanoseconds total_seconds truncate week weekday year"
    ),
    "polars.expr.list:ExprListNameSpace": (
        "all any arg_max arg_min concat contains count_matches diff drop_nulls explode filter first gather"
        " gather_every get head item join last len max mean median min n_unique reverse sample set_difference"
        " set_intersection set_symmetric_difference set_union shift slice sort std sum tail to_array to_map to_struct"
        " unique var"
    ),
    "polars.series.list:ListNameSpace": (
        "all any arg_max arg_min concat contains count_matches diff drop_nulls explode filter first gather"
        " gather_every get head item join last len max mean median min n_unique reverse sample set_difference"
        " set_intersection set_symmetric_difference set_union shift slice sort std sum tail to_array to_map to_struct"
        " unique var"
    ),
    "polars.expr.array:ExprArrayNameSpace": (
        "all any arg_max arg_min contains count_matches dot explode first get head join last len max mean median min"
        " n_unique reverse shift slice sort std sum tail to_list to_struct unique var"
    ),
    "polars.series.array:ArrayNameSpace": (
        "all any arg_max arg_min contains count_matches dot explode first get head join last len max mean median min"
        " n_unique reverse shift slice sort std sum tail to_list to_struct unique var"
    ),
    "polars.expr.categorical:ExprCatNameSpace": "ends_with len_bytes len_chars physical slice starts_with to",
    "polars.series.categorical:CatNameSpace": "ends_with len_bytes len_chars physical slice starts_with to",
    "polars.expr.struct:ExprStructNameSpace": "drop field json_encode rename_fields unnest with_fields",
    "polars.series.struct:StructNameSpace": "drop field fields json_encode rename_fields schema unnest",
    "polars.expr.binary:ExprBinaryNameSpace": (
        "contains decode encode ends_with get head reinterpret size slice starts_with tail"
    ),
    "polars.series.binary:BinaryNameSpace": (
        "contains decode encode ends_with get head reinterpret size slice starts_with tail"
    ),
    "polars.expr.name:ExprNameNameSpace": (
        "keep prefix prefix_fields replace strip_prefix strip_suffix suffix suffix_fields to_lowercase to_uppercase"
    ),
    "polars.dataframe.group_by:GroupBy": (
        "agg all first group_by having head last len max mean median min n_unique quantile sum tail"
    ),
    "polars.dataframe.group_by:RollingGroupBy": "agg",
    "polars.dataframe.group_by:DynamicGroupBy": "agg",
    "polars.lazyframe.group_by:LazyGroupBy": (
        "agg all first group_by having head last len max mean median min n_unique quantile sum tail"
    ),
    "polars.datatypes.classes:DataType": "is_numeric is_integer is_float is_temporal is_nested",
    "polars.expr.whenthen:When": "then",
    "polars.expr.whenthen:Then": "when otherwise",
    "polars.expr.whenthen:ChainedWhen": "then",
    "polars.expr.whenthen:ChainedThen": "when otherwise",
}

#: Classes whose objects may be arguments, but have no names that may be used.
HELD: Final = (
    "pyarrow.lib:Array pyarrow.lib:ChunkedArray pyarrow.lib:RecordBatch pyarrow.lib:Table torch:Tensor"
    " pandas._libs.missing:NAType pandas.core.indexing:_AtIndexer pandas.core.indexing:_LocIndexer"
    " pandas.core.indexing:_iAtIndexer pandas.core.indexing:_iLocIndexer pandas:Grouper"
)
